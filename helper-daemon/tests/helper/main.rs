//! The helper, driven as users and shims do: by its command and over its socket.

mod commands;
mod contents;
mod doctor;
mod logs;
mod names;
mod nodes;
mod support;
