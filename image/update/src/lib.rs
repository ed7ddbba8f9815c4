//! The next image of a box in a branch: a signed bundle goes into the slot that does not run, and becomes the one that
//! starts only when it is there whole.
//!
//! Refuses: a bundle that nobody signed whom this image trusts, one for another machine, one that is not newer, one below
//! the floor, one with a damaged part; all before a byte of the disk is changed. And while the image that runs has not
//! proven itself: the other slot is then its way back. Onto a disk that has no image yet the same bundle goes by [`install`].
//! Invariant: whatever moment the power goes at, what runs starts again, and half an image never does ([`apply`]).
#![forbid(unsafe_code)]

pub mod apply;
pub mod bundle;
pub mod esp;
pub mod install;
pub mod machine;
pub mod reset;
pub mod settle;
pub mod table;
