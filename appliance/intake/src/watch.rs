//! Noticing: inotify where the kernel says what happens, and looking through the folder everywhere.
//!
//! inotify sees what programs of this machine do, a file server's included; it does not see what other machines do to a
//! network file system. There, and where no watch is to be had, only looking is left.
//! Refuses to do: follow links to directories; look into the results and error folders; believe that it was told all.

use crate::examine::stamp;
use crate::folder::Event;
use crate::names::DEPTH_MAX;
use crate::options::{Notice, Options};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Most folders watched below one; those beyond are looked through only.
const WATCHES_MAX: usize = 4_096;
/// File systems whose changes by others nobody tells: NFS, CIFS, SMB2, FUSE, 9p, AFS, Ceph.
const REMOTE: [u64; 7] =
    [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997, 0x5346_414f, 0x00c3_6400];

/// Watches one folder.
pub struct Watch {
    folder: PathBuf,
    excluded: Vec<PathBuf>,
    kernel: Option<Kernel>,
}

struct Kernel {
    inotify: OwnedFd,
    folders: HashMap<i32, PathBuf>,
}

impl Watch {
    /// Begins; what is there already is found by the first [`Watch::look`].
    pub fn new(options: &Options) -> Self {
        let excluded = [Some(&options.errors), options.results.as_ref()];
        let excluded =
            excluded.into_iter().flatten().filter_map(|path| fs::canonicalize(path).ok()).collect();
        let local = options.notice == Notice::Auto && !is_remote(&options.folder);
        let kernel =
            local.then(|| inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()).flatten();
        let kernel = kernel.map(|inotify| Kernel { inotify, folders: HashMap::new() });
        let mut watch = Watch { folder: options.folder.clone(), excluded, kernel };
        // One that cannot watch its top watches nothing.
        if !watch.add(Path::new("")) {
            watch.kernel = None;
        }
        watch
    }

    /// By which means.
    pub fn means(&self) -> &'static str {
        if self.kernel.is_some() { "inotify" } else { "polling" }
    }

    fn add(&mut self, folder: &Path) -> bool {
        let Some(kernel) = &mut self.kernel else { return false };
        let wanted = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        if kernel.folders.len() >= WATCHES_MAX {
            return false;
        }
        match inotify::add_watch(&kernel.inotify, self.folder.join(folder), wanted) {
            Ok(watch) => {
                kernel.folders.insert(watch, folder.to_owned());
                true
            }
            Err(_) => false,
        }
    }

    /// Looks through the whole folder and says what is there.
    pub fn look(&mut self, sink: &mut dyn FnMut(Event)) -> io::Result<()> {
        sink(Event::LookBegins);
        // What cannot be listed is not "gone": only a whole look ends with what is missing.
        self.look_into(Path::new(""), sink)?;
        sink(Event::LookEnds);
        Ok(())
    }

    fn look_into(&mut self, below: &Path, sink: &mut dyn FnMut(Event)) -> io::Result<()> {
        let directory = self.folder.join(below);
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && self.enters(&name) => {
                    self.add(&name);
                    match self.look_into(&name, sink) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Ok(kind) if kind.is_file() => self.see(name, sink),
                _ => {}
            }
        }
        Ok(())
    }

    fn enters(&self, folder: &Path) -> bool {
        let hidden = folder.file_name().is_some_and(|name| name.as_encoded_bytes().first() == Some(&b'.'));
        let whole = || fs::canonicalize(self.folder.join(folder)).ok();
        !hidden
            && folder.components().count() <= DEPTH_MAX
            && whole().is_some_and(|whole| !self.excluded.contains(&whole))
    }

    fn see(&self, name: PathBuf, sink: &mut dyn FnMut(Event)) {
        match fs::symlink_metadata(self.folder.join(&name)) {
            Ok(metadata) => {
                if let Some(stamp) = stamp(&metadata) {
                    sink(Event::Seen(name, stamp));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => sink(Event::Gone(name)),
            Err(_) => {}
        }
    }

    /// Says what the kernel has told since; returns whether the folder has to be looked through.
    pub fn listen(&mut self, sink: &mut dyn FnMut(Event)) -> bool {
        let mut heard = Vec::new();
        let mut lost = false;
        if let Some(kernel) = &self.kernel {
            let mut buffer = [MaybeUninit::uninit(); 64 << 10];
            let mut reader = inotify::Reader::new(&kernel.inotify, &mut buffer);
            // A flood is taken in parts: the rest of the loop has its turn in between.
            while heard.len() < 10_000 {
                let Ok(event) = reader.next() else { break };
                if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    lost = true;
                    continue;
                }
                let (Some(folder), Some(name)) = (kernel.folders.get(&event.wd()), event.file_name()) else {
                    continue;
                };
                heard.push((folder.join(OsStr::from_bytes(name.to_bytes())), event.events()));
            }
        }
        for (name, what) in heard {
            if what.contains(ReadFlags::ISDIR) {
                // A folder came or went, perhaps with files in it.
                lost = true;
                continue;
            }
            if what.intersects(ReadFlags::MOVED_FROM | ReadFlags::DELETE) {
                self.see(name, sink);
                continue;
            }
            self.see(name.clone(), sink);
            if what.contains(ReadFlags::MODIFY) {
                sink(Event::Written(name));
            } else if what.contains(ReadFlags::CLOSE_WRITE) {
                sink(Event::Closed(name));
            }
        }
        if lost {
            sink(Event::Lost);
        }
        lost
    }
}

fn is_remote(folder: &Path) -> bool {
    let kind = rustix::fs::statfs(folder).map(|statfs| statfs.f_type as u64 & 0xffff_ffff);
    kind.is_ok_and(|kind| REMOTE.contains(&kind))
}
