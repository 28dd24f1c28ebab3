//! Metadata services that we play ourselves: for `rehearse`, for `emulate`, and for tests.
//!
//! Each is a script (plain data: what stands when), a pure function from a request to a reply, and a thin server around
//! them. They imitate what a cloud really sends, byte for byte where that is known. Nothing in the daemon imports them.

pub mod aws;
