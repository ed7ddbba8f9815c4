//! The console of a box that runs from an image of its own: one screen that says what the box does, and the network settings
//! that whoever stands at the keyboard may change. `docs/image.md`, *The console*, is for those who use it.
//!
//! Refuses to do: show a secret; show old news as new; run anything but a restart, a power-off and a change of the network;
//! keep network settings that nobody has confirmed.
//! Invariant: what is on the data partition was confirmed, or came with the stick that took the box into service; what is
//! being tried is below `/run` and gone after a power cut.
#![forbid(unsafe_code)]

pub mod app;
pub mod change;
pub mod facts;
pub mod form;
pub mod networkd;
pub mod place;
pub mod screen;
