//! A disk in memory that fails on command.
//!
//! What it models:
//! - The page cache: reads see every write (`live`); the disk sees a write once a sync succeeded (`durable`).
//! - A failed sync the way Linux has it: the dirty pages are marked clean, `live` still shows them, and no later
//!   sync writes them. Opening the file again with the cache dropped shows what the disk has.
//! - Directory entries: creations, renames and removals are durable after `sync_dir`, in order.
//! - A power cut: what was not synced is gone, or a random part of it survived, sector by sector.
//!
//! Every operation that can change the disk counts; a fault is aimed at one of them by its number.

use bulla_ledger::Store;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What happens to the operation that the fault is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect. For a sync: what was pending never reaches the disk.
    Lost,
    /// It fails, but it was done.
    DoneButErrored,
    /// Half of a write is done, then it fails. As `Lost` for other operations.
    Torn,
    /// A write is done with one bit changed, and reported as done. Other operations are done.
    BitFlip,
    /// Power fails just before it: it and everything after it fails until [`CrashStore::reboot`].
    PowerCut,
}

/// What of the unsynced operations a power cut spares.
#[derive(Debug, Clone, Copy)]
pub enum Spared {
    Nothing,
    Everything,
    Random(u64),
}

const SECTOR: usize = 512;
const PAGE: u64 = 4096;

#[derive(Clone)]
enum FileOp {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Clone)]
enum DirOp {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

/// A sparse file image.
#[derive(Clone, Default)]
struct Image {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl Image {
    fn apply(&mut self, op: &FileOp) {
        match op {
            FileOp::Write(offset, data) => {
                self.len = self.len.max(offset + data.len() as u64);
                let mut at = 0;
                while at < data.len() {
                    let position = offset + at as u64;
                    let inside = (position % PAGE) as usize;
                    let count = (PAGE as usize - inside).min(data.len() - at);
                    let page =
                        self.pages.entry(position / PAGE).or_insert_with(|| Arc::new([0; PAGE as usize]));
                    Arc::make_mut(page)[inside..inside + count].copy_from_slice(&data[at..at + count]);
                    at += count;
                }
            }
            FileOp::SetLen(len) => {
                self.len = *len;
                self.pages.retain(|number, _| number * PAGE < *len);
                if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                    Arc::make_mut(page)[(len % PAGE) as usize..].fill(0);
                }
            }
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = 0;
        while at < out.len() {
            let position = offset + at as u64;
            let inside = (position % PAGE) as usize;
            let count = (PAGE as usize - inside).min(out.len() - at);
            match self.pages.get(&(position / PAGE)) {
                Some(page) => out[at..at + count].copy_from_slice(&page[inside..inside + count]),
                None => out[at..at + count].fill(0),
            }
            at += count;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Inode {
    live: Image,
    durable: Image,
    pending: Vec<FileOp>,
}

struct World {
    inodes: Vec<Inode>,
    live_names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<DirOp>,
    /// Shared by all directories of one disk.
    switch: Switch,
    sync_does_nothing: bool,
    cache_is_kept: bool,
    /// Bytes that writes may still add before ENOSPC.
    room: u64,
    free_bytes: u64,
}

/// What counts the operations of a disk and makes them fail.
#[derive(Clone, Default)]
pub struct Switch(Arc<Mutex<Levers>>);

#[derive(Default)]
struct Levers {
    operations: u64,
    fault: Option<(u64, Fault)>,
    power_is_off: bool,
}

impl Switch {
    fn levers(&self) -> MutexGuard<'_, Levers> {
        self.0.lock().unwrap()
    }

    pub fn operations(&self) -> u64 {
        self.levers().operations
    }

    pub fn aim(&self, operation: u64, fault: Fault) {
        self.levers().fault = Some((operation, fault));
    }

    pub fn disarm(&self) -> bool {
        self.levers().fault.take().is_some()
    }

    pub fn power_on(&self) {
        let mut levers = self.levers();
        (levers.power_is_off, levers.fault) = (false, None);
    }

    pub fn check_power(&self) -> io::Result<()> {
        if self.levers().power_is_off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    /// Counts an operation and lets the aimed fault happen: what is to be done of it.
    pub fn operation(&self) -> io::Result<Do> {
        let mut levers = self.levers();
        let number = levers.operations;
        levers.operations += 1;
        if levers.power_is_off {
            return Err(io::Error::other("the power is off"));
        }
        let Some((_, fault)) = levers.fault.filter(|(at, _)| *at == number) else { return Ok(Do::It) };
        levers.fault = None;
        match fault {
            Fault::Lost => Ok(Do::Nothing),
            Fault::DoneButErrored => Ok(Do::ItAndFail),
            Fault::Torn => Ok(Do::Half),
            Fault::BitFlip => Ok(Do::ItChanged),
            Fault::PowerCut => {
                levers.power_is_off = true;
                Err(io::Error::other("the power is off"))
            }
        }
    }
}

/// See the module's head. Clones share the disk.
#[derive(Clone)]
pub struct CrashStore(Arc<Mutex<World>>);

impl fmt::Debug for CrashStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashStore")
    }
}

impl CrashStore {
    pub fn new() -> Self {
        Self::on(Switch::default())
    }

    /// A directory of the disk with this switch.
    pub fn on(switch: Switch) -> Self {
        Self(Arc::new(Mutex::new(World {
            inodes: Vec::new(),
            live_names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            switch,
            sync_does_nothing: false,
            cache_is_kept: false,
            room: u64::MAX,
            free_bytes: u64::MAX,
        })))
    }

    /// A disk that says "synced" and is not: the negative control.
    pub fn whose_sync_does_nothing() -> Self {
        let store = Self::new();
        store.world().sync_does_nothing = true;
        store
    }

    /// A store that opens files with the stale page cache left in place: the second negative control.
    pub fn that_keeps_the_cache() -> Self {
        let store = Self::new();
        store.world().cache_is_kept = true;
        store
    }

    pub fn shared(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.world().switch.operations()
    }

    /// Aims a fault at the operation with this number.
    pub fn aim(&self, operation: u64, fault: Fault) {
        self.world().switch.aim(operation, fault);
    }

    /// Whether the aimed fault has not happened yet; disarms it.
    pub fn disarm(&self) -> bool {
        self.world().switch.disarm()
    }

    /// Bytes that can still be written, and what `free_bytes` says about it.
    pub fn set_room(&self, room: u64, free_bytes: u64) {
        let mut world = self.world();
        (world.room, world.free_bytes) = (room, free_bytes);
    }

    /// Cuts the power now, and starts again with what the disk has.
    pub fn reboot(&self, spared: Spared) {
        let mut world = self.world();
        let mut rng = match spared {
            Spared::Random(seed) => {
                let seed: Vec<u8> = seed.to_le_bytes().repeat(4);
                Some(TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
            }
            _ => None,
        };
        let everything = matches!(spared, Spared::Everything);
        let names = std::mem::take(&mut world.pending_names);
        let kept = match &mut rng {
            Some(rng) => rng.next_u32() as usize % (names.len() + 1),
            None if everything => names.len(),
            None => 0,
        };
        for op in &names[..kept] {
            apply_name(&mut world.durable_names, op);
        }
        world.live_names = world.durable_names.clone();
        for inode in &mut world.inodes {
            for op in std::mem::take(&mut inode.pending) {
                match (&mut rng, op) {
                    (None, op) if everything => inode.durable.apply(&op),
                    (None, _) => {}
                    (Some(rng), FileOp::Write(offset, data)) => {
                        for (at, sector) in data.chunks(SECTOR).enumerate() {
                            if rng.next_u32() & 1 == 1 {
                                let op = FileOp::Write(offset + (at * SECTOR) as u64, sector.to_vec());
                                inode.durable.apply(&op);
                            }
                        }
                    }
                    (Some(rng), op) => {
                        if rng.next_u32() & 1 == 1 {
                            inode.durable.apply(&op);
                        }
                    }
                }
            }
            inode.live = inode.durable.clone();
        }
        world.switch.power_on();
    }

    /// Names of the files.
    pub fn names(&self) -> Vec<String> {
        self.world().live_names.keys().cloned().collect()
    }

    /// Length of a file.
    pub fn file_len(&self, name: &str) -> u64 {
        let world = self.world();
        world.inodes[world.live_names[name] as usize].live.len
    }

    /// Flips one bit of a file on the disk, behind everybody's back.
    pub fn flip(&self, name: &str, offset: u64, bit: u8) {
        let mut world = self.world();
        let number = world.live_names[name] as usize;
        let inode = &mut world.inodes[number];
        let mut byte = [0];
        inode.durable.read(offset, &mut byte).unwrap();
        let op = FileOp::Write(offset, vec![byte[0] ^ 1 << bit]);
        inode.durable.apply(&op);
        inode.live.apply(&op);
    }

    /// A second, independent disk with the same contents.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        let world = self.world();
        {
            let mut other = copy.world();
            for inode in &world.inodes {
                other.inodes.push(Inode {
                    live: inode.live.clone(),
                    durable: inode.durable.clone(),
                    pending: inode.pending.clone(),
                });
            }
            other.live_names = world.live_names.clone();
            other.durable_names = world.durable_names.clone();
            other.pending_names = world.pending_names.clone();
        }
        drop(world);
        copy
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Do {
    It,
    ItAndFail,
    ItChanged,
    Half,
    Nothing,
}

impl Do {
    pub fn result(self) -> io::Result<()> {
        if matches!(self, Do::It | Do::ItChanged) { Ok(()) } else { Err(io::Error::other("injected fault")) }
    }

    pub fn wholly(self) -> bool {
        matches!(self, Do::It | Do::ItChanged | Do::ItAndFail)
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, op: &DirOp) {
    match op {
        DirOp::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        DirOp::Unlink(name) => {
            names.remove(name);
        }
        DirOp::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl CrashStore {
    fn name_operation(&self, op: DirOp) -> io::Result<()> {
        let mut world = self.world();
        let done = world.switch.operation()?;
        if done.wholly() {
            apply_name(&mut world.live_names, &op);
            if world.sync_does_nothing {
                // The control is about data: names that vanish would only show that nothing is left at all.
                apply_name(&mut world.durable_names, &op);
            } else {
                world.pending_names.push(op);
            }
        }
        done.result()
    }

    fn inode_of(world: &World, name: &str) -> io::Result<u64> {
        world.live_names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Store for CrashStore {
    fn list(&self) -> io::Result<Vec<String>> {
        let world = self.world();
        world.switch.check_power()?;
        Ok(world.live_names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut world = self.world();
        world.switch.check_power()?;
        let number = Self::inode_of(&world, name)?;
        if !world.cache_is_kept {
            let inode = &mut world.inodes[number as usize];
            inode.live = inode.durable.clone();
            for op in &inode.pending {
                inode.live.apply(op);
            }
        }
        Ok(Box::new(CrashFile { store: self.clone(), inode: number }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let number = self.world().inodes.len() as u64;
        self.world().inodes.push(Inode::default());
        self.name_operation(DirOp::Link(name.to_owned(), number))?;
        Ok(Box::new(CrashFile { store: self.clone(), inode: number }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Self::inode_of(&self.world(), from)?;
        self.name_operation(DirOp::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Self::inode_of(&self.world(), name)?;
        self.name_operation(DirOp::Unlink(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        let done = world.switch.operation()?;
        if done.wholly() {
            let world = &mut *world;
            for op in std::mem::take(&mut world.pending_names) {
                apply_name(&mut world.durable_names, &op);
            }
        }
        done.result()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.world().free_bytes)
    }
}

#[derive(Debug)]
struct CrashFile {
    store: CrashStore,
    inode: u64,
}

impl CrashFile {
    fn change(&self, op: FileOp) -> io::Result<()> {
        let mut world = self.store.world();
        let done = world.switch.operation()?;
        let grows = match &op {
            FileOp::Write(_, data) => data.len() as u64,
            FileOp::SetLen(_) => 0,
        };
        if grows > world.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        world.room -= grows;
        let op = match (done, op) {
            (Do::Half, FileOp::Write(offset, data)) => {
                Some(FileOp::Write(offset, data[..data.len() / 2].to_vec()))
            }
            (Do::ItChanged, FileOp::Write(offset, mut data)) => {
                // Somewhere in the used part of a page: behind its header, before its free space.
                let at = data.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                data[at] ^= 4;
                Some(FileOp::Write(offset, data))
            }
            (done, op) => done.wholly().then_some(op),
        };
        if let Some(op) = op {
            let inode = &mut world.inodes[self.inode as usize];
            inode.live.apply(&op);
            inode.pending.push(op);
        }
        done.result()
    }
}

impl StorageBackend for CrashFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.store.world().inodes[self.inode as usize].live.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let world = self.store.world();
        world.switch.check_power()?;
        world.inodes[self.inode as usize].live.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(FileOp::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.store.world();
        let done = world.switch.operation()?;
        if world.sync_does_nothing {
            return done.result();
        }
        let inode = &mut world.inodes[self.inode as usize];
        let pending = std::mem::take(&mut inode.pending);
        if done.wholly() {
            pending.iter().for_each(|op| inode.durable.apply(op));
        }
        done.result()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(FileOp::Write(offset, data.to_vec()))
    }
}
