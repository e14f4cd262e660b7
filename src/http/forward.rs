//! Reading the log forwards: the index answers newest first, so what follows a position is asked for
//! by ranges of positions that grow until they hold enough.

use pgwitness_index::record::Seq;
use pgwitness_index::search::{Count, MAX_LIMIT, Query, Scope, Window};
use pgwitness_index::view::View;

use super::Api;
use super::api::failed;
use super::problem::Problem;

/// Positions in the first range.
const RANGE_MIN: u64 = 256;
/// How much larger each next range is.
const GROWTH: u64 = 8;

/// The first records after a position that answer a query, oldest first, at most `count` (up to
/// [`MAX_LIMIT`]); and whether there are more.
pub(super) fn forward(
    api: &Api,
    query: &Query,
    scope: &Scope,
    after: Seq,
    count: usize,
) -> Result<(Vec<View>, bool), Problem> {
    let newest = api.search.newest();
    let mut found: Vec<View> = Vec::new();
    let (mut seen, mut range) = (after, RANGE_MIN);
    while seen < newest && found.len() <= count {
        let to = Seq(seen.0.saturating_add(range)).min(newest);
        let part = query.clone().and(Query::between(Seq(seen.0 + 1), to));
        let page = api.search.page(&part, scope, &Window::default(), MAX_LIMIT, None, Count::None);
        let page = page.map_err(|error| failed(&error))?;
        if page.next_cursor.is_some() {
            // As many positions as a page has records hold no more than that.
            range = MAX_LIMIT as u64;
            continue;
        }
        found.extend(page.items.into_iter().rev());
        (seen, range) = (to, range.saturating_mul(GROWTH));
    }
    let more = found.len() > count;
    found.truncate(count);
    Ok((found, more))
}
