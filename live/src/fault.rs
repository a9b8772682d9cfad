//! A fault on demand, for tests of what a fault does. It is not in release builds.

use std::sync::OnceLock;

/// Names the text whose frame is fatal.
const VARIABLE: &str = "SGWALL_PANIC_ON";

/// Panics if the environment names a text and the frame has it.
pub(crate) fn panic_on(frame: &[u8]) {
    static TEXT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        text.map(String::into_bytes)
    });
    if let Some(text) = text
        && frame.windows(text.len()).any(|window| window == text)
    {
        panic!("{VARIABLE} is set, and a frame has its text");
    }
}
