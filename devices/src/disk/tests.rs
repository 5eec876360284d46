//! Engines and images without a queue.
