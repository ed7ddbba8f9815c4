//! What was measured, for the tables and the plot.

/// A log of one size.
#[derive(Debug, Clone)]
pub struct Sized {
    /// Entries at the beginning of each turn.
    pub entries: u64,
    /// Entries a second in batches of 512.
    pub batched: f64,
    /// Entries a second one by one.
    pub single: f64,
    /// 99th percentile of those.
    pub single_p99_ms: f64,
    /// Median of random inclusion proofs.
    pub proof_p50_ms: f64,
    /// 99th percentile of those.
    pub proof_p99_ms: f64,
    /// From `Ledger::open` to ready, after SIGKILL.
    pub open_seconds: f64,
    /// To learn that a document was never sealed, µs.
    pub stranger_us: f64,
    /// Largest resident set of any child.
    pub rss_mb: f64,
    /// Bytes of an entry as signed.
    pub entry_bytes: f64,
    /// Bytes on the disk for each entry, with all tables.
    pub disk_bytes: f64,
}

/// One way to hold a document to account, and its rate.
#[derive(Debug, Clone)]
pub struct Rate {
    /// Which.
    pub what: String,
    /// Documents a second.
    pub per_second: f64,
    /// Whether it is the box.
    pub ours: bool,
}

/// The middle one; 0 of none.
pub fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
