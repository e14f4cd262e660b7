//! x.

use super::{Sitting, Step, ok};
use crate::demo::shop::BOB;

pub(super) const SITTINGS: &[Sitting] = &[Sitting { person: &BOB, application_name: "psql", steps: PSQL }];

const PSQL: &[Step] = &[ok("SELECT 1")];
