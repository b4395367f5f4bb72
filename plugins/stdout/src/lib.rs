//! Prints samples for people, a line each, in columns.
//!
//! ```text
//! 2017-08-21 07:21:00  cpu.total.user             12.5    percent
//! 2017-08-21 07:21:00  memory.MemFree        2048000      kB
//! 2017-08-21 07:21:00  web-7: app.requests        50      requests {region=eu}
//! ```

mod figure;
mod page;

use std::io::Write;

use kimberlite_plugin_sdk::{Batch, HandleError, Handler, Receipt, Result, Settings, agent, export_handler};

use page::Page;

#[derive(Debug)]
struct Stdout {
    page: Page,
}

impl Handler for Stdout {
    fn new(settings: &Settings) -> Result<Self> {
        let prefix = settings.text("prefix").unwrap_or_default();
        Ok(Self { page: Page::new(prefix, &agent::info().name) })
    }

    fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
        let text = self.page.print(batch);
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(Receipt::delivered())
    }
}

export_handler!(Stdout);
