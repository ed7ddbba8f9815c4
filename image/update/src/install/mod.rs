//! An image goes onto the disk of a machine, from a stick that starts by itself: the same signed bundle that updates a box,
//! the boot loader, and a partition table of its own.
//!
//! Order of the steps, each on the disk before the next ([`mod@write`]):
//! 1. if the disk was a box's: the key slots of its data are overwritten, so nobody opens them again;
//! 2. the first sector goes, and with it whatever the disk started before; a mark says what is going on here;
//! 3. the rest of the old tables goes; root, hashes and boot partition are written and read back from the disk;
//! 4. the new table is written, both copies; the mark goes;
//! 5. the first sector is written. From here on, and not before, firmware starts from the disk.
//!
//! Refuses, before step 1: a bundle that nobody signed whom the running image trusts, or with a damaged part; a boot loader
//! that is not the one that the running kernel image names; a disk that nobody named and that is not empty, or not the only
//! one; the data of a box, unless the order names the disk's serial number ([`choice`]).
//! Invariant: whatever moment the power goes at, the disk starts what it started before, or nothing, or the whole image; and
//! the same stick begins anew.

pub mod boot;
pub mod choice;
pub mod disks;
pub mod layout;
pub mod write;
