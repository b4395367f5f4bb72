//! What was built against 0.1.0 runs with every later agent.

use kimberlite_tests::{component_source, verb, verb_with_input};

use crate::KIMBERLITE;

#[test]
fn plugins_of_the_first_contract_still_run() {
    let frozen = |kind: &str| component_source(&format!("../../wit/frozen/{kind}-0.1.0.wasm"));
    for kind in ["collector", "handler"] {
        let shown = verb(KIMBERLITE, &["inspect", &frozen(kind)]).expect_code(0);
        assert!(shown.stdout.contains(kind) && shown.stdout.contains("0.1.0"), "{shown:?}");
    }
    let collected = verb(KIMBERLITE, &["collect", &frozen("collector"), "--runs", "1"]).expect_code(0);
    assert!(collected.stderr.contains("this component measures nothing"), "{collected:?}");
    let sample = r#"{"timestamp":1503300000000,"element":"a","metric":"b","value":1,"kind":"gauge"}"#;
    verb_with_input(KIMBERLITE, &["send", &frozen("handler"), "--from", "-"], sample).expect_code(0);
}
