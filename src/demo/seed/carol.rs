//! x.

use super::{Sitting, Step, ok};
use crate::demo::shop::CAROL;

pub(super) const SITTINGS: &[Sitting] = &[Sitting { person: &CAROL, application_name: "psql", steps: PSQL }];

const PSQL: &[Step] = &[ok("SELECT 1")];
