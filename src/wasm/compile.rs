//! From a file's bytes to a component that is ready to start: checked for what it is, compiled, checked for what it
//! imports and exports. Nothing of it has run then.
//!
//! Invariant: a [`Compiled`] imports only interfaces that the gateway serves and exports `routing` with exactly the
//! types of `wit/`. Only WebAssembly's own binary format is read, never machine code that somebody compiled before.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmtime::component::types::{ComponentFunc, ComponentInstance, ComponentItem, Type};
use wasmtime::component::{Component, Linker};

use super::bindings::PolicyPre;
use super::engine::Engine;
use super::host::Host;

/// The package of the policy interface, and the versions that are served.
const PACKAGE: &str = "pointsman:policy";
const SERVED: &[&str] = &["0.1.0"];
/// Interfaces that a component may import.
const IMPORTS: &[&str] = &["types", "statement", "parameters", "session", "topology", "hashes", "host"];
/// The interface that it must export, and its functions.
const EXPORT: &str = "routing";
const FUNCTIONS: &[&str] = &["configure", "route"];

/// A component that may be started.
pub(super) struct Compiled {
    pub(super) digest: [u8; 32],
    /// The size of the file, in bytes.
    pub(super) size: usize,
    pub(super) pre: PolicyPre<Host>,
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Says what is wrong with a file that cannot be a component, without compiling it. One pass over eight bytes.
pub(super) fn look(bytes: &[u8]) -> Result<(), String> {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(format!("it is {} bytes long, too short for a component; is it still being written?", bytes.len()));
    };
    if magic != b"\0asm" {
        return Err("it is not WebAssembly; a policy is a component in the binary format".into());
    }
    match rest.first_chunk::<4>() {
        Some([0x0d, 0, 1, 0]) => Ok(()),
        Some([1, 0, 0, 0]) => Err("it is a core module, not a component; encode it with `pointsman policy build` or \
             `wasm-tools component new`"
            .into()),
        _ => Err("its WebAssembly version is not known to this gateway".into()),
    }
}

/// Compiles and checks. Takes tens of milliseconds and up: not for the data path.
pub(super) fn compile(engine: &Engine, digest: [u8; 32], bytes: &[u8]) -> Result<Arc<Compiled>, String> {
    look(bytes)?;
    let component = Component::from_binary(&engine.wasmtime, bytes)
        .map_err(|error| format!("it does not compile: {}", first_line(&format!("{error:#}"))))?;
    check_imports(engine, &component)?;
    check_exports(engine, &component)?;
    let pre = engine
        .linker
        .instantiate_pre(&component)
        .and_then(PolicyPre::new)
        .map_err(|error| format!("it does not fit the policy interface: {}", first_line(&format!("{error:#}"))))?;
    Ok(Arc::new(Compiled { digest, size: bytes.len(), pre }))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// `namespace:package/interface@version`, taken apart.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version))
}

fn check_imports(engine: &Engine, component: &Component) -> Result<(), String> {
    let kind = component.component_type();
    for (name, _) in kind.imports(&engine.wasmtime) {
        match parts(name) {
            Some((PACKAGE, interface, version)) if SERVED.contains(&version) => {
                if !IMPORTS.contains(&interface) {
                    return Err(format!("it imports {name}, an interface that this gateway does not serve"));
                }
            }
            Some((PACKAGE, _, version)) => return Err(another_version(version)),
            Some((package, ..)) if package.starts_with("wasi:") => {
                return Err(format!(
                    "it imports {name}; a policy has no system interface: no files, network, environment or clock. \
                     Build it for wasm32-unknown-unknown, or stub WASI out"
                ));
            }
            _ => return Err(format!("it imports {name}; a policy may import {PACKAGE}'s interfaces only")),
        }
    }
    Ok(())
}

fn another_version(version: &str) -> String {
    format!("it speaks {PACKAGE}@{version}; this gateway serves {}", SERVED.join(", "))
}

/// The export is there, in a served version, and its functions have the types that the embedded policy's have, which
/// was built from the same `wit/`.
fn check_exports(engine: &Engine, component: &Component) -> Result<(), String> {
    let kind = component.component_type();
    let mut found = None;
    for (name, item) in kind.exports(&engine.wasmtime) {
        match (parts(name), item.ty) {
            (Some((PACKAGE, EXPORT, version)), ComponentItem::ComponentInstance(instance)) => {
                if !SERVED.contains(&version) {
                    return Err(another_version(version));
                }
                found = Some(instance);
            }
            (Some((PACKAGE, _, version)), _) if !SERVED.contains(&version) => return Err(another_version(version)),
            _ => {}
        }
    }
    let Some(found) = found else {
        return Err(format!("it does not export {PACKAGE}/{EXPORT}@{}, so it is no policy", SERVED.join(" or ")));
    };
    for name in FUNCTIONS {
        match (function(engine, &found, name), function(engine, &engine.reference, name)) {
            (Some(found), Some(expected)) if signature(&found) == signature(&expected) => {}
            (None, _) => return Err(format!("its export {EXPORT} has no function {name}")),
            _ => return Err(format!("its function {EXPORT}.{name} has other types than {PACKAGE}@{}", SERVED[0])),
        }
    }
    Ok(())
}

fn function(engine: &Engine, instance: &ComponentInstance, name: &str) -> Option<ComponentFunc> {
    match instance.get_export(&engine.wasmtime, name)?.ty {
        ComponentItem::ComponentFunc(function) => Some(function),
        _ => None,
    }
}

fn signature(function: &ComponentFunc) -> (bool, Vec<Type>, Vec<Type>) {
    (function.async_(), function.params().map(|(_, of)| of).collect(), function.results().collect())
}

/// The embedded policy, which is known to be good, and the type of its export, which all others must have.
pub(super) fn builtin(
    wasmtime: &wasmtime::Engine,
    linker: &Linker<Host>,
) -> wasmtime::Result<(Arc<Compiled>, ComponentInstance)> {
    let bytes = super::builtin::READ_WRITE_SPLIT;
    let component = Component::from_binary(wasmtime, bytes)?;
    let kind = component.component_type();
    let reference = kind.exports(wasmtime).find_map(|(name, item)| match (parts(name), item.ty) {
        (Some((PACKAGE, EXPORT, _)), ComponentItem::ComponentInstance(instance)) => Some(instance),
        _ => None,
    });
    let reference = reference.ok_or_else(|| wasmtime::Error::msg("the embedded policy exports no `routing`"))?;
    let pre = PolicyPre::new(linker.instantiate_pre(&component)?)?;
    Ok((Arc::new(Compiled { digest: sha256(bytes), size: bytes.len(), pre }), reference))
}
