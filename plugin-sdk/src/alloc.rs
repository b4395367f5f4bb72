//! Counts the plugin's heap, exactly, and remembers each block when asked to.
//!
//! It sits between the plugin and `System` and never calls the agent: imports are not allowed while
//! arguments are being handed over, which allocates. Its own table comes from `System`, uncounted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

use table::Table;

mod table;

/// How many of a block's bytes a survivor shows.
const PREVIEW: usize = 64;

/// What is in use, and what ever was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Heap {
    /// Bytes in use.
    pub(crate) live_bytes: u64,
    /// Blocks in use.
    pub(crate) live_blocks: u64,
    /// The most bytes that were ever in use.
    pub(crate) peak_bytes: u64,
    /// How many blocks were ever made; one that grows stays one.
    pub(crate) allocations: u64,
}

/// Blocks of one size and age that are still in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survivor {
    pub(crate) size: usize,
    pub(crate) born: u32,
    pub(crate) count: u32,
    pub(crate) preview: Vec<u8>,
}

/// The counting allocator; one thread at a time.
pub(crate) struct Counting {
    heap: Cell<Heap>,
    /// Number of the call that is running, or of the next one: arguments are allocated before it.
    call: Cell<u32>,
    /// Every block since tracking began; none: off.
    blocks: UnsafeCell<Option<Table>>,
}

// SAFETY: a component has one thread.
#[cfg(target_arch = "wasm32")]
unsafe impl Sync for Counting {}

impl Counting {
    pub(crate) const fn new() -> Self {
        let heap = Heap { live_bytes: 0, live_blocks: 0, peak_bytes: 0, allocations: 0 };
        Self { heap: Cell::new(heap), call: Cell::new(0), blocks: UnsafeCell::new(None) }
    }

    /// As of now.
    pub(crate) fn heap(&self) -> Heap {
        self.heap.get()
    }

    /// What is allocated from here on belongs to the next call.
    pub(crate) fn end_call(&self) {
        self.call.set(self.call.get().saturating_add(1));
    }

    /// Starts or stops remembering each block; stopping forgets them.
    pub(crate) fn track(&self, on: bool) {
        self.with_blocks(|blocks| match (on, blocks.is_some()) {
            (true, false) => *blocks = Some(Table::new()),
            (false, true) => *blocks = None,
            _ => {}
        });
    }

    /// At most `limit` groups of blocks in use, the ones with most bytes first; and how many bytes
    /// in use are not known because they were allocated while tracking was off.
    pub(crate) fn survivors(&self, limit: usize) -> (Vec<Survivor>, u64) {
        let live = self.heap.get().live_bytes;
        let snapshot = self.with_blocks(|blocks| blocks.as_ref().and_then(Table::snapshot));
        let Some(mut snapshot) = snapshot else { return (Vec::new(), live) };

        let known: u64 = snapshot.blocks().iter().map(|block| block.size as u64).sum();
        // What is allocated from here on, the answer itself included, is not in the snapshot; what is
        // in it stays allocated meanwhile.
        let groups = snapshot.group();
        let survivor = |group: &table::Group| Survivor {
            size: group.size,
            born: group.born,
            count: group.count,
            preview: preview(group.address, group.size),
        };
        (groups.iter().take(limit).map(survivor).collect(), live.saturating_sub(known))
    }

    /// `f` must not allocate from `self`.
    fn with_blocks<R>(&self, f: impl FnOnce(&mut Option<Table>) -> R) -> R {
        // SAFETY: one thread, and no `f` in this file comes back here, so this is the only reference.
        f(unsafe { &mut *self.blocks.get() })
    }

    fn add(&self, address: usize, size: usize) {
        let heap = self.heap.get();
        let live_bytes = heap.live_bytes + size as u64;
        self.heap.set(Heap {
            live_bytes,
            live_blocks: heap.live_blocks + 1,
            peak_bytes: heap.peak_bytes.max(live_bytes),
            allocations: heap.allocations + 1,
        });
        self.remember(address, size);
    }

    fn subtract(&self, address: usize, size: usize) {
        let heap = self.heap.get();
        self.heap.set(Heap {
            live_bytes: heap.live_bytes - size as u64,
            live_blocks: heap.live_blocks - 1,
            ..heap
        });
        self.with_blocks(|blocks| blocks.iter_mut().for_each(|table| table.remove(address)));
    }

    fn remember(&self, address: usize, size: usize) {
        let born = self.call.get();
        self.with_blocks(|blocks| {
            if let Some(table) = blocks
                && table.insert(address, size, born).is_err()
            {
                // No memory for a larger table: better no picture than a wrong one.
                *blocks = None;
            }
        });
    }
}

/// The first bytes of a block, as they lie in memory.
fn preview(address: usize, size: usize) -> Vec<u8> {
    let start = std::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the block is in use. Its bytes may never have been written, so they are read one by
    // one and volatile: whatever is there is what is wanted.
    (0..size.min(PREVIEW)).map(|i| unsafe { start.add(i).read_volatile() }).collect()
}

// Never inlined: a plugin has hundreds of places that allocate or free, and 40 KB of copies.
// SAFETY: `System` does the work; counting neither touches the blocks nor unwinds.
unsafe impl GlobalAlloc for Counting {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            self.add(block.expose_provenance(), layout.size());
        }
        block
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            self.add(block.expose_provenance(), layout.size());
        }
        block
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.subtract(block.addr(), layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) };
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let before = block.addr();
        // SAFETY: the caller's promises are passed on.
        let grown = unsafe { System.realloc(block, layout, size) };
        if !grown.is_null() {
            let heap = self.heap.get();
            let live_bytes = heap.live_bytes - layout.size() as u64 + size as u64;
            self.heap.set(Heap { live_bytes, peak_bytes: heap.peak_bytes.max(live_bytes), ..heap });
            // Its age starts anew: a list that grows for ever shows up as young.
            self.with_blocks(|blocks| blocks.iter_mut().for_each(|table| table.remove(before)));
            self.remember(grown.expose_provenance(), size);
        }
        grown
    }
}

#[cfg(all(target_arch = "wasm32", feature = "count-allocations"))]
#[global_allocator]
pub(crate) static HEAP: Counting = Counting::new();

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of `size` bytes that begins with `text`.
    fn block(counting: &Counting, size: usize, text: &str) -> (*mut u8, Layout) {
        let layout = Layout::from_size_align(size, 1).unwrap();
        // SAFETY: the size is not 0, and `text` fits.
        let block = unsafe { counting.alloc_zeroed(layout) };
        assert!(text.len() <= size);
        unsafe { block.copy_from(text.as_ptr(), text.len()) };
        (block, layout)
    }

    fn free(counting: &Counting, (block, layout): (*mut u8, Layout)) {
        // SAFETY: made by `block`, freed once.
        unsafe { counting.dealloc(block, layout) };
    }

    #[test]
    fn heap_is_counted_to_the_byte() {
        let counting = Counting::new();
        let (a, b) = (block(&counting, 100, "a"), block(&counting, 23, "b"));
        free(&counting, a);
        let heap = Heap { live_bytes: 23, live_blocks: 1, peak_bytes: 123, allocations: 2 };
        assert_eq!(counting.heap(), heap);

        // SAFETY: `b` is in use and goes on as `grown`.
        let grown = unsafe { counting.realloc(b.0, b.1, 200) };
        let heap = Heap { live_bytes: 200, live_blocks: 1, peak_bytes: 200, allocations: 2 };
        assert_eq!(counting.heap(), heap);
        free(&counting, (grown, Layout::from_size_align(200, 1).unwrap()));
        assert_eq!(counting.heap().live_bytes, 0);
    }

    #[test]
    fn survivors_are_grouped_by_size_and_call_largest_first() {
        let counting = Counting::new();
        let before = block(&counting, 1000, "before tracking");
        counting.track(true);
        let small: Vec<_> = (0..3).map(|_| block(&counting, 10, "small")).collect();
        counting.end_call();
        let later: Vec<_> = (0..5).map(|_| block(&counting, 10, "later")).collect();
        let large = block(&counting, 100, "large");
        let gone = block(&counting, 5000, "gone");
        free(&counting, gone);

        let (groups, untracked) = counting.survivors(10);
        let found: Vec<_> = groups.iter().map(|g| (g.size, g.born, g.count, g.preview.len())).collect();
        assert_eq!(found, [(100, 1, 1, 64), (10, 1, 5, 10), (10, 0, 3, 10)]);
        assert!(groups[0].preview.starts_with(b"large\0"));
        assert_eq!(untracked, 1000);
        assert_eq!(counting.survivors(1).0.len(), 1);

        counting.track(false);
        assert_eq!(counting.survivors(10), (Vec::new(), 1180));
        for block in small.into_iter().chain(later).chain([large, before]) {
            free(&counting, block);
        }
        assert_eq!(counting.heap().live_bytes, 0);
    }

    #[test]
    fn block_that_grows_is_born_again() {
        let counting = Counting::new();
        counting.track(true);
        let (start, layout) = block(&counting, 10, "list");
        counting.end_call();
        // SAFETY: `start` is in use and goes on as `grown`.
        let grown = unsafe { counting.realloc(start, layout, 4000) };
        let (groups, untracked) = counting.survivors(10);
        assert_eq!((groups.len(), groups[0].size, groups[0].born, untracked), (1, 4000, 1, 0));
        free(&counting, (grown, Layout::from_size_align(4000, 1).unwrap()));
    }
}
