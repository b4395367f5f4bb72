//! Every block in use, by address: open addressing, memory from `System`, so that tracking is seen
//! neither in its own figures nor by itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cmp::Ordering;

/// A block in use. Address 0 is a free place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) address: usize,
    pub(super) size: usize,
    pub(super) born: u32,
}

const FREE: Block = Block { address: 0, size: 0, born: 0 };

/// The table's memory is used up.
#[derive(Debug)]
pub(super) struct Full;

/// Blocks by address. At most 7 of 8 places are taken; what collides lies in the next free place.
#[derive(Debug)]
pub(super) struct Table {
    /// As many as a power of two, or none.
    places: Array<Block>,
    taken: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { places: Array::none(), taken: 0 }
    }

    pub(super) fn insert(&mut self, address: usize, size: usize, born: u32) -> Result<(), Full> {
        if (self.taken + 1) * 8 > self.places.len * 7 {
            self.grow()?;
        }
        self.put(Block { address, size, born });
        Ok(())
    }

    /// Forgets a block; one that is not there was allocated before tracking.
    pub(super) fn remove(&mut self, address: usize) {
        let mask = self.places.len.wrapping_sub(1);
        let places = self.places.as_mut_slice();
        if places.is_empty() {
            return;
        }
        let mut hole = home(address, mask);
        while places[hole].address != address {
            if places[hole].address == 0 {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.taken -= 1;
        // What lies behind moves up, unless it would come before its home.
        let mut next = (hole + 1) & mask;
        while places[next].address != 0 {
            let distance_from_home = next.wrapping_sub(home(places[next].address, mask)) & mask;
            if distance_from_home >= next.wrapping_sub(hole) & mask {
                places[hole] = places[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        places[hole] = FREE;
    }

    /// A copy of all blocks, outside the counted heap; none: there is no memory for it.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        let mut blocks = Array::new(self.taken, FREE)?;
        let taken = self.places.as_slice().iter().filter(|block| block.address != 0);
        for (copy, block) in blocks.as_mut_slice().iter_mut().zip(taken) {
            *copy = *block;
        }
        Some(Snapshot { blocks, groups: Array::none() })
    }

    fn grow(&mut self) -> Result<(), Full> {
        let larger = Array::new((self.places.len * 2).max(64), FREE).ok_or(Full)?;
        let old = std::mem::replace(&mut self.places, larger);
        self.taken = 0;
        for block in old.as_slice().iter().filter(|block| block.address != 0) {
            self.put(*block);
        }
        Ok(())
    }

    /// There is a free place.
    fn put(&mut self, block: Block) {
        let mask = self.places.len - 1;
        let places = self.places.as_mut_slice();
        let mut at = home(block.address, mask);
        while places[at].address != 0 {
            at = (at + 1) & mask;
        }
        places[at] = block;
        self.taken += 1;
    }
}

/// Addresses are multiples of 8 or 16, so their upper bits have to reach the lower ones.
fn home(address: usize, mask: usize) -> usize {
    let mixed = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize & mask
}

/// Blocks of one size and age.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) size: usize,
    pub(super) born: u32,
    pub(super) count: u32,
    /// Of one of them.
    pub(super) address: usize,
}

impl Group {
    fn bytes(&self) -> u64 {
        self.size as u64 * u64::from(self.count)
    }
}

/// All blocks at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    blocks: Array<Block>,
    groups: Array<Group>,
}

impl Snapshot {
    pub(super) fn blocks(&self) -> &[Block] {
        self.blocks.as_slice()
    }

    /// The groups, those with most bytes first; of equal ones the older first. Empty if there is no
    /// memory for them.
    pub(super) fn group(&mut self) -> &[Group] {
        let empty = Group { size: 0, born: 0, count: 0, address: 0 };
        let Some(groups) = Array::new(self.blocks.len, empty) else { return &[] };
        self.groups = groups;
        let groups = self.groups.as_mut_slice();
        for (group, block) in groups.iter_mut().zip(self.blocks.as_slice()) {
            *group = Group { size: block.size, born: block.born, count: 1, address: block.address };
        }
        sort(groups, |a, b| (a.size, a.born).cmp(&(b.size, b.born)));

        let mut last = 0;
        for i in 1..groups.len() {
            let group = groups[i];
            if (group.size, group.born) == (groups[last].size, groups[last].born) {
                groups[last].count = groups[last].count.saturating_add(1);
            } else {
                last += 1;
                groups[last] = group;
            }
        }
        let count = if groups.is_empty() { 0 } else { last + 1 };
        let groups = &mut groups[..count];
        sort(groups, |a, b| b.bytes().cmp(&a.bytes()).then(a.born.cmp(&b.born)));
        groups
    }
}

/// In place, without allocating; a function pointer, so that it is in the plugin once.
fn sort(groups: &mut [Group], order: fn(&Group, &Group) -> Ordering) {
    groups.sort_unstable_by(order);
}

/// A fixed number of `T`s in memory of `System`.
#[derive(Debug)]
struct Array<T: Copy> {
    start: *mut T,
    len: usize,
}

impl<T: Copy> Array<T> {
    fn none() -> Self {
        Self { start: std::ptr::null_mut(), len: 0 }
    }

    /// None: there is no memory.
    fn new(len: usize, fill: T) -> Option<Self> {
        if len == 0 {
            return Some(Self::none());
        }
        let layout = Layout::array::<T>(len).ok()?;
        // SAFETY: the layout's size is not 0: no `T` here is empty.
        let start = unsafe { System.alloc(layout) }.cast::<T>();
        if start.is_null() {
            return None;
        }
        for i in 0..len {
            // SAFETY: inside the block.
            unsafe { start.add(i).write(fill) };
        }
        Some(Self { start, len })
    }

    fn as_slice(&self) -> &[T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `new` has filled all of it.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: `new` has filled all of it, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T: Copy> Drop for Array<T> {
    fn drop(&mut self) {
        if let (1.., Ok(layout)) = (self.len, Layout::array::<T>(self.len)) {
            // SAFETY: allocated by `new` with this layout.
            unsafe { System.dealloc(self.start.cast(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn table_agrees_with_a_map_through_churn() {
        let mut table = Table::new();
        let mut map = BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..20_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let address = ((random >> 40) as usize % 3000 + 1) * 16;
            if map.remove(&address).is_some() {
                table.remove(address);
            } else {
                table.insert(address, step as usize, step).unwrap();
                map.insert(address, step);
            }
        }
        table.remove(7); // never inserted
        let snapshot = table.snapshot().unwrap();
        let found: BTreeMap<_, _> = snapshot.blocks().iter().map(|b| (b.address, b.born)).collect();
        assert_eq!(found, map);
    }

    #[test]
    fn empty_table_has_no_groups() {
        let mut table = Table::new();
        table.remove(16);
        assert!(table.snapshot().unwrap().group().is_empty());
    }
}
