//! x.

use super::{Sitting, Step, ok};
use crate::demo::shop::ANN;

pub(super) const SITTINGS: &[Sitting] = &[Sitting { person: &ANN, application_name: "psql", steps: PSQL }];

const PSQL: &[Step] = &[ok("SELECT 1")];
