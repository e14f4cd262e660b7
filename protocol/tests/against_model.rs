//! The conversation against a strict model of PostgreSQL's message loop, led by arbitrary bytes. The
//! fuzz target `conversation` leads the same model for longer.

mod model;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_record_of_any_conversation_is_the_truth(data in prop::collection::vec(any::<u8>(), 0..400)) {
        model::run(&data);
    }
}
