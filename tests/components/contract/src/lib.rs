//! Frozen as `wit/frozen/plugin-0.1.0.wasm`. Built again only for a new version of the contract.

wit_bindgen::generate!({ path: "../../../wit", world: "host" });

use exports::kimberlite::plugin::{collector, diagnostics, handler};

struct Contract;

impl collector::Guest for Contract {
    fn init(_: Vec<collector::Setting>) -> Result<(), collector::InitError> {
        Ok(())
    }

    fn collect(_: collector::Tick) -> Result<collector::Batch, collector::CollectError> {
        Err(collector::CollectError::Absent("this component measures nothing".to_owned()))
    }
}

impl handler::Guest for Contract {
    fn init(_: Vec<handler::Setting>) -> Result<(), handler::InitError> {
        Ok(())
    }

    fn handle(_: handler::Batch) -> handler::Answer {
        handler::Answer::Delivered(handler::Receipt { unconfirmed: 0 })
    }
}

impl diagnostics::Guest for Contract {
    fn heap_stats() -> diagnostics::Heap {
        diagnostics::Heap { live_bytes: 0, live_blocks: 0, peak_bytes: 0, allocations: 0 }
    }

    fn track(_: bool) {}

    fn survivors(_: u32) -> diagnostics::SurvivorsReport {
        diagnostics::SurvivorsReport { groups: Vec::new(), untracked_bytes: 0 }
    }
}

export!(Contract);
