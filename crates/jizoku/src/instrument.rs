//! Makes a module ready for the `wasm` engine: able to unwind its stack and to rewind it.
//!
//! What it does not know: what a module does.

use jizoku_asyncify::{NoReturn, Options, instrument as rewrite};

/// The module that the specification's imports come from.
const WASI: &str = "wasi_snapshot_preview1";

/// The instrumented module; one that is instrumented already stays as it is. The error is for
/// people.
pub(crate) fn instrument(module: &[u8]) -> Result<Vec<u8>, String> {
    let waiting: Vec<(&str, &str)> =
        jizoku_wasm::WAITING.iter().map(|name| (WASI, *name)).collect();
    // The engine itself refuses unknown imports: it knows what it offers.
    let options =
        Options { unwinding_imports: &waiting, allowed_imports: None, no_return: NoReturn::Unwind };
    rewrite(module, &options).map(|made| made.wasm).map_err(|error| error.to_string())
}
