//! What each route is, in the order of `api::routes`: one file per tag of the document.
//!
//! Refuses to do: name what every operation shares (`operation` adds it).

pub mod acts;
pub mod console;
pub mod drops;
pub mod log;
pub mod outages;
pub mod peers;
pub mod reconciled;
pub mod seals;
pub mod system;
pub mod tsa;
pub mod verify;
