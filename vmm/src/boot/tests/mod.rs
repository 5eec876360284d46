//! Tests that go through the front door: open a source, load it, look at guest memory.

mod caching;
mod damage;
mod finding;
mod loading;
