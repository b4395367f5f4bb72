//! Components for tests: where `build.rs` put them, one made by hand, one in Python.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent};
use wasm_encoder::{CodeSection, Component, Function, HeapType, Instruction};
use wasmparser::{FunctionBody, Operator, Parser};

/// Misbehaves as its settings say.
pub const HOSTILE_COLLECTOR: &str = env!("HOSTILE_COLLECTOR");
/// Misbehaves as its settings say.
pub const HOSTILE_HANDLER: &str = env!("HOSTILE_HANDLER");

/// The version that the Python component is built with.
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

/// The hostile collector, but wherever it would grow its memory it grows a table, by a million
/// elements. No compiler makes such a thing.
pub fn grows_tables() -> Vec<u8> {
    let bytes = fs::read(HOSTILE_COLLECTOR).unwrap();
    let mut component = Component::new();
    GrowTables.parse_component(&mut component, Parser::new(0), &bytes).unwrap();
    component.finish()
}

struct GrowTables;

impl Reencode for GrowTables {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), Error<Self::Error>> {
        let mut function: Function = self.new_function_with_parsed_locals(&body)?;
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            if let Operator::MemoryGrow { .. } = reader.clone().read()? {
                reader.read()?;
                for instruction in [
                    Instruction::Drop,
                    Instruction::RefNull(HeapType::FUNC),
                    Instruction::I32Const(1_000_000),
                    Instruction::TableGrow(0),
                ] {
                    function.instruction(&instruction);
                }
            } else {
                function.instruction(&self.parse_instruction(&mut reader)?);
            }
        }
        code.function(&function);
        Ok(())
    }
}

impl ReencodeComponent for GrowTables {}

/// The collector in Python, built once and kept; none: it cannot be built here, which only outside
/// of CI is no failure.
pub fn python() -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = Path::new(env!("TARGET_DIR")).join("test-python");
    let (venv, built) = (kept.join("venv"), kept.join("python.wasm"));
    let source = here.join("components/python");
    if is_older(&built, &[&source.join("app.py"), &here.join("../wit")]) {
        fs::create_dir_all(&kept).unwrap();
        let tool = venv.join("bin/componentize-py");
        let made = tool.exists()
            || run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
                && run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", COMPONENTIZE_PY]));
        if !made {
            assert!(std::env::var_os("CI").is_none(), "cannot install {COMPONENTIZE_PY}");
            // Not by `eprintln!`, which tests keep to themselves.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: no Python component, for {COMPONENTIZE_PY} is not there"
            );
            return None;
        }
        let aside = kept.join("python.wasm.new");
        let componentized = run(Command::new(tool)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .args(["-q", "-w", "collector-plugin", "-d"])
            .arg(here.join("../wit"))
            .arg("componentize")
            .arg("-p")
            .arg(&source)
            .args(["app", "-o"])
            .arg(&aside));
        assert!(componentized, "componentize-py failed; see above");
        fs::rename(&aside, &built).unwrap();
    }
    Some(built.to_str().unwrap().to_owned())
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// Folders count by the files in them.
fn is_older(file: &Path, sources: &[&Path]) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let Some(built) = changed(file) else { return true };
    let mut sources: Vec<_> = sources.iter().map(|path| path.to_path_buf()).collect();
    while let Some(source) = sources.pop() {
        if let Ok(entries) = fs::read_dir(&source) {
            sources.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
        } else if changed(&source).is_none_or(|changed| changed > built) {
            return true;
        }
    }
    false
}
