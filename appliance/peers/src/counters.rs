//! What has passed, for metrics: numbers only, no names.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the task counts.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// What a wire has done since it was started; `connections` is how it stands now.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counted {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Counted {
                Counted { $($name: self.$name.load(Relaxed),)* }
            }
        }

        impl Counted {
            /// Every number with its name, in a fixed order.
            pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Peers that are connected now.
    connections,
    /// Dials begun.
    dials,
    /// Dials that came to nothing.
    dials_failed,
    /// Peers that were connected and are not.
    disconnects,
    /// Connections refused at the door or at the handshake.
    refused,
    /// Hints published.
    hints_out,
    /// Their bytes, counted once however many peers there are.
    hint_bytes_out,
    /// Hints handed on as events.
    hints_in,
    /// Their bytes.
    hint_bytes_in,
    /// Hints dropped: too many of them, or nobody read the events.
    hints_dropped,
    /// Requests sent.
    requests_out,
    /// Their bytes.
    request_bytes_out,
    /// Requests received whole.
    requests_in,
    /// Their bytes.
    request_bytes_in,
    /// Requests refused as busy: too many at once, or too many a second.
    requests_busy,
    /// Answers sent whole.
    answers_out,
    /// Their bytes.
    answer_bytes_out,
    /// Answers received whole.
    answers_in,
    /// Their bytes.
    answer_bytes_in,
    /// Peers shut out for a while because they flooded.
    shut_out,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// So many more.
pub(crate) fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Relaxed);
}
