//! The body: what carries the mind's orders out.

pub mod executor;
pub mod notice_file;
