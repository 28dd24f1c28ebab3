//! The body: the tasks that carry inputs to the mind and its orders to the world.

pub mod poller;
