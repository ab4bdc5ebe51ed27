//! Memory as the allocator sees it: what a line of a trace costs, and what converting a run larger than memory takes.
//!
//! In a binary of its own, one test at a time: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tthoma::analyze::Options;
use tthoma::model::Model;
use tthoma::testing::Repeat;

/// The system's allocator, counting what is in use. Memory that moves counts twice while it moves.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    PEAK.fetch_max(USED.fetch_add(bytes, Ordering::Relaxed) + bytes, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "an allocator can't be told otherwise")]
// SAFETY: all calls go to the system's allocator as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        more(new_size);
        // SAFETY: as above.
        let at = unsafe { System.realloc(at, layout, new_size) };
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

static ALONE: Mutex<()> = Mutex::new(());

/// Runs `work`; returns what it did and by how many bytes the memory in use grew at most.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let done = work();
    (done, PEAK.load(Ordering::Relaxed) - before)
}

fn samples(folder: &str) -> Vec<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(folder);
    tthoma::read::files(&[path]).unwrap()
}

/// At most 64 bytes a line at the peak, for events, hosts, clocks, messages, packets, transmissions and receptions together.
#[test]
fn the_base_tables_take_at_most_64_bytes_a_line() {
    let _alone = ALONE.lock();
    let dir = std::env::temp_dir().join(format!("tthoma-memory-{}", std::process::id()));
    for folder in ["kernel_100", "kernel_500k"] {
        let files = Repeat { lines: 800_000, copies: 1 }.write(&samples(folder), &dir).unwrap();
        let (model, peak) = peak(|| Model::read(&files, &Options::default()).unwrap());
        let lines: u64 = model.stats().map(|s| s.lines).sum();
        let each = peak as f64 / lines as f64;
        println!("{folder}: {lines} lines, {each:.1} bytes a line at the peak");
        assert!(model.stats().all(|s| s.records == s.lines), "every line is an event");
        assert!(each <= 64.0, "{folder}: {each} bytes a line");
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// As many bytes for three times the lines, and for three times the nodes.
#[cfg(feature = "tables")]
#[test]
fn converting_in_parts_takes_no_more_memory_for_a_longer_run_or_for_more_nodes() {
    const LIMIT: u64 = 10_000_000;
    let _alone = ALONE.lock();
    let (dir, tables) = ["traces", "tables"]
        .map(|name| std::env::temp_dir().join(format!("tthoma-memory-{name}-{}", std::process::id())))
        .into();
    for (lines, copies) in [(300_000, 1), (600_000, 1), (600_000, 3)] {
        let files = Repeat { lines, copies }.write(&samples("kernel_500k"), &dir).unwrap();
        assert!(tthoma::tables::stream::needs(&files) > 2 * LIMIT);
        let convert = || tthoma::tables::stream::write(&files, &Options::default(), &tables, "r", LIMIT).unwrap();
        let (manifest, peak) = peak(convert);
        let events: usize = manifest.files.iter().filter(|f| f.table == "events").map(|f| f.rows).sum();
        println!("{lines} lines, {} nodes: {:.1} MB", files.len(), peak as f64 / 1e6);
        assert!(events as u64 >= lines);
        // What is read and written at a time is added to the limit.
        assert!(peak < 60_000_000, "{lines} lines, {} nodes: {peak} bytes", files.len());
        fs::remove_dir_all(&dir).unwrap();
        fs::remove_dir_all(&tables).unwrap();
    }
}
