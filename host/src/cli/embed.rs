//! `kimberlite embed plugin.toml x.wasm`: a manifest into a component of any language.

use std::path::PathBuf;

use clap::Args;

use super::{Ended, print};
use crate::config::manifest::Manifest;
use crate::plugin::section;

#[derive(Debug, Args)]
pub(super) struct Embed {
    /// The manifest.
    manifest: PathBuf,
    /// The component; changed in place, unless there is `--to`.
    wasm: PathBuf,
    /// Write the result here instead.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Embed {
    pub(super) fn run(self) -> Result<(), Ended> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| Ended::Io(format!("cannot read {}: {error}", path.display())))
        };
        let text = String::from_utf8(read(&self.manifest)?)
            .map_err(|_| Ended::Config(format!("{} is not UTF-8", self.manifest.display())))?;
        let manifest = Manifest::parse(&text)?;
        let wasm = section::embed(&read(&self.wasm)?, &text)
            .map_err(|why| Ended::Config(format!("{} {why}", self.wasm.display())))?;
        let to = self.to.as_ref().unwrap_or(&self.wasm);
        // Whole or not at all: an agent may be watching.
        let aside = to.with_extension("wasm.new");
        let written = std::fs::write(&aside, &wasm).and_then(|()| std::fs::rename(&aside, to));
        written.map_err(|error| Ended::Io(format!("cannot write {}: {error}", to.display())))?;
        print(&format!("{}: {} `{}`, {} bytes\n", to.display(), manifest.kind, manifest.name, wasm.len()));
        Ok(())
    }
}
