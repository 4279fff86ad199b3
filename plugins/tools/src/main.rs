//! Two commands for `build.sh`:
//!
//! `encode CORE.wasm COMPONENT.wasm` wraps a core module, built for wasm32-unknown-unknown, as a component.
//! `bindings WIT-DIR OUT-DIR` (feature `bindings`) writes the SDK's bindings.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["encode", from, to] => encode(Path::new(from), Path::new(to)),
        #[cfg(feature = "bindings")]
        ["bindings", wit, to] => bindings(Path::new(wit), Path::new(to)),
        _ => Err("usage: pointsman-policy-tools encode CORE.wasm COMPONENT.wasm | bindings WIT-DIR OUT-DIR".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pointsman-policy-tools: {error}");
            ExitCode::FAILURE
        }
    }
}

fn encode(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let core = std::fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
    let component = wit_component::ComponentEncoder::default()
        .module(&core)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| format!("{}: {error:#}", from.display()))?;
    std::fs::write(to, component).map_err(|error| format!("{}: {error}", to.display()))?;
    Ok(())
}

#[cfg(feature = "bindings")]
fn bindings(wit: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some("policy"))?;
    let options = wit_bindgen_rust::Opts {
        pub_export_macro: true,
        generate_all: true,
        format: true,
        ..wit_bindgen_rust::Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    for (name, contents) in files.iter() {
        std::fs::write(to.join(name), contents)?;
    }
    Ok(())
}
