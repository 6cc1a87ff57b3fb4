//! The program as a process: what it prints, how it exits, what it leaves when somebody ends it; and the configurations that come
//! with it.

mod cli;
mod configs;
#[cfg(unix)]
mod reliability;
#[path = "../support/mod.rs"]
mod support;
