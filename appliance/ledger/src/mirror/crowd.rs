//! Which mirrors have their files open: the most recently used ones, so that fifty mirrors do not cost fifty page caches.
//!
//! Invariant: a mirror that somebody reads, writes or has to recover is never closed, also when that is one too many.

use crate::mirror::copy::Inner;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    /// Most recently used last.
    open: Mutex<VecDeque<Weak<Inner>>>,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), open: Mutex::default() }
    }

    /// Notes that a mirror was used, and closes those that were not for the longest time. Called without its lock.
    pub(super) fn enter(&self, used: &Arc<Inner>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|each| each.strong_count() > 0 && !std::ptr::eq(each.as_ptr(), Arc::as_ptr(used)));
        open.push_back(Arc::downgrade(used));
        let mut surplus = open.len().saturating_sub(self.most);
        // Oldest first; those in use stay.
        open.retain(|each| {
            if surplus == 0 || std::ptr::eq(each.as_ptr(), Arc::as_ptr(used)) {
                return true;
            }
            let closed = each.upgrade().is_none_or(|inner| inner.rest());
            surplus -= usize::from(closed);
            !closed
        });
    }
}
