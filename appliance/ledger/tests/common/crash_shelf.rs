//! A shelf of directories on one disk that fails on command: see `crash_store` for what is modelled inside each. Making,
//! renaming and removing a directory is durable after [`Shelf::sync`] of the shelf, in order.

use super::crash_store::{CrashStore, Spared, Switch};
use bulla_ledger::{Shelf, Store};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone)]
enum ShelfOp {
    Link(String, CrashStore),
    Rename(String, String),
    Unlink(String),
}

fn apply(names: &mut BTreeMap<String, CrashStore>, op: ShelfOp) {
    match op {
        ShelfOp::Link(name, directory) => drop(names.insert(name, directory)),
        ShelfOp::Rename(from, to) => {
            if let Some(directory) = names.remove(&from) {
                names.insert(to, directory);
            }
        }
        ShelfOp::Unlink(name) => drop(names.remove(&name)),
    }
}

#[derive(Default)]
struct Room {
    live: BTreeMap<String, CrashStore>,
    durable: BTreeMap<String, CrashStore>,
    pending: Vec<ShelfOp>,
}

/// Clones share the disk.
#[derive(Clone, Default)]
pub struct CrashShelf {
    pub switch: Switch,
    room: Arc<Mutex<Room>>,
}

impl fmt::Debug for CrashShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashShelf")
    }
}

impl CrashShelf {
    pub fn shared(&self) -> Arc<dyn Shelf> {
        Arc::new(self.clone())
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap()
    }

    /// A directory, for looking and damaging.
    pub fn directory(&self, name: &str) -> CrashStore {
        self.room().live[name].clone()
    }

    /// Cuts the power now, and starts again with what the disk has.
    pub fn reboot(&self, spared: Spared) {
        let mut room = self.room();
        let pending = std::mem::take(&mut room.pending);
        let kept = match spared {
            Spared::Nothing => 0,
            Spared::Everything => pending.len(),
            Spared::Random(seed) => seed as usize % (pending.len() + 1),
        };
        pending.into_iter().take(kept).for_each(|op| apply(&mut room.durable, op));
        room.live = room.durable.clone();
        room.live.values().for_each(|directory| directory.reboot(spared));
        self.switch.power_on();
    }

    fn change(&self, op: ShelfOp) -> io::Result<()> {
        let done = self.switch.operation()?;
        if done.wholly() {
            let mut room = self.room();
            apply(&mut room.live, op.clone());
            room.pending.push(op);
        }
        done.result()
    }
}

impl Shelf for CrashShelf {
    fn list(&self) -> io::Result<Vec<String>> {
        self.switch.check_power()?;
        Ok(self.room().live.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Store>> {
        self.switch.check_power()?;
        self.room().live.get(name).map(CrashStore::shared).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Store>> {
        if self.room().live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let directory = CrashStore::on(self.switch.clone());
        self.change(ShelfOp::Link(name.to_owned(), directory.clone()))?;
        Ok(directory.shared())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.room().live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(ShelfOp::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(ShelfOp::Unlink(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let done = self.switch.operation()?;
        if done.wholly() {
            let mut room = self.room();
            for op in std::mem::take(&mut room.pending) {
                apply(&mut room.durable, op);
            }
        }
        done.result()
    }
}
