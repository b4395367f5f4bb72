//! Builds the components that misbehave, and says where they are.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use wasm_encoder::reencode::{Error as ReencodeError, Reencode, ReencodeComponent};
use wasm_encoder::{CodeSection, Component, HeapType, Instruction};
use wasmparser::{FunctionBody, Operator, Parser};

const TARGET: &str = "wasm32-wasip2";
const COMPONENTS: [&str; 2] = ["hostile-collector", "hostile-handler"];

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", here.join("../wit").display());
    // OUT_DIR is TARGET_DIR/PROFILE/build/NAME-HASH/out.
    let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR has another shape")?.join("test-components");
    for name in COMPONENTS {
        let source = here.join("components").join(name);
        for watched in ["src", "Cargo.toml", "Cargo.lock", "plugin.toml"] {
            println!("cargo::rerun-if-changed={}", source.join(watched).display());
        }
        build(&source, &target_dir)?;
        let built = target_dir.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
        // A copy of its own: cargo's output is hard-linked, and open to whoever may write there.
        let copy = out.join(format!("{name}.wasm"));
        fs::copy(&built, &copy)?;
        println!("cargo::rustc-env={}={}", name.replace('-', "_").to_uppercase(), copy.display());
    }
    let grown = out.join("grows-tables.wasm");
    fs::write(&grown, grows_tables(&fs::read(out.join("hostile-collector.wasm"))?)?)?;
    println!("cargo::rustc-env=GROWS_TABLES={}", grown.display());
    println!("cargo::rustc-env=TARGET_DIR={}", out.ancestors().nth(4).ok_or("OUT_DIR")?.display());
    Ok(())
}

fn build(source: &Path, target_dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(source)
        .args(["build", "--locked", "--release", "--target", TARGET, "--target-dir"])
        .arg(target_dir);
    // What this build was told about the host's own code is not meant for guests.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", format!("--remap-path-prefix={}=", source.display()));
    let status = cargo.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("building {} failed; see above", source.display()).into())
    }
}

/// A component that, wherever it would grow its memory, grows a table by a million elements. No compiler
/// makes such a thing.
fn grows_tables(component: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut grown = Component::new();
    GrowTables.parse_component(&mut grown, Parser::new(0), component)?;
    Ok(grown.finish())
}

struct GrowTables;

impl Reencode for GrowTables {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
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
