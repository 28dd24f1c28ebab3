//! What people are told, and in which words.

mod finding;
mod histogram;
mod seconds;
mod span;
mod spoken;
mod text;
mod wording;

pub use finding::{Finding, Weight};
pub use histogram::Histogram;
pub use seconds::Seconds;
pub use span::Span;
pub use spoken::Spoken;
pub use text::{clip, is_printable, printable, printable_json, printable_lines};
pub use wording::Loudness;
