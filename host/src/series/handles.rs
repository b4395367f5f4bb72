//! The numbers by which one instance of a collector names its series or elements.

/// Live handles with the slot each stands for. Handles only grow, so the list is sorted as it
/// comes, and it is as long as there are live ones, however many there were.
#[derive(Debug, Default)]
pub(super) struct Handles {
    live: Vec<(u32, u32)>,
    next: u64,
}

/// Slot of a handle that has become void before the list was rebuilt.
const VOID: u32 = u32::MAX;

impl Handles {
    /// True if `handle` is the next unused one; it is used from now on, bound or not.
    pub(super) fn claim(&mut self, handle: u32) -> bool {
        let is_next = u64::from(handle) == self.next;
        self.next += u64::from(is_next);
        is_next
    }

    /// Gives the handle claimed last its slot.
    pub(super) fn bind(&mut self, handle: u32, slot: usize) {
        debug_assert_eq!(u64::from(handle) + 1, self.next);
        self.live.push((handle, slot as u32));
    }

    /// None: unknown or void.
    pub(super) fn slot(&self, handle: u32) -> Option<usize> {
        self.slot_near(handle, &mut 0)
    }

    /// The same. Whoever looks up many keeps one `guess`: collectors mostly name their series in
    /// the order in which they described them, and then no search is needed.
    #[inline]
    pub(super) fn slot_near(&self, handle: u32, guess: &mut usize) -> Option<usize> {
        let at = match self.live.get(*guess) {
            Some(&(guessed, _)) if guessed == handle => *guess,
            _ => self.live.binary_search_by_key(&handle, |&(live, _)| live).ok()?,
        };
        *guess = at + 1;
        let slot = self.live[at].1;
        (slot != VOID).then_some(slot as usize)
    }

    /// Makes a handle void.
    pub(super) fn void(&mut self, handle: u32) {
        if let Ok(at) = self.live.binary_search_by_key(&handle, |&(live, _)| live) {
            self.live[at].1 = VOID;
        }
    }

    /// Replaces all live handles, as their slots have moved.
    pub(super) fn rebuild(&mut self, live: impl Iterator<Item = (u32, usize)>) {
        self.live.clear();
        self.live.extend(live.map(|(handle, slot)| (handle, slot as u32)));
        self.live.sort_unstable();
        if self.live.len() < self.live.capacity() / 4 {
            self.live.shrink_to(self.live.len() * 2);
        }
    }

    /// Starts again from 0, for a new instance.
    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.next = 0;
    }

    pub(super) fn bytes(&self) -> usize {
        self.live.capacity() * size_of::<(u32, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handles(count: u32) -> Handles {
        let mut handles = Handles::default();
        for handle in 0..count {
            assert!(handles.claim(handle));
            handles.bind(handle, handle as usize + 100);
        }
        handles
    }

    #[test]
    fn only_the_next_unused_handle_can_be_claimed() {
        let mut handles = handles(2);
        assert!(!handles.claim(1));
        assert!(!handles.claim(3));
        assert!(handles.claim(2));
    }

    #[test]
    fn handles_are_found_in_any_order() {
        let handles = handles(5);
        let mut guess = 0;
        for handle in [0, 1, 2, 4, 3, 0, 0] {
            assert_eq!(handles.slot_near(handle, &mut guess), Some(handle as usize + 100));
        }
        assert_eq!(handles.slot_near(5, &mut guess), None);
    }

    #[test]
    fn void_handle_is_not_found_and_never_comes_back() {
        let mut handles = handles(3);
        handles.void(1);
        assert_eq!(handles.slot(1), None);
        handles.rebuild([(2, 7), (0, 8)].into_iter());
        assert_eq!((handles.slot(0), handles.slot(1), handles.slot(2)), (Some(8), None, Some(7)));
        assert!(!handles.claim(1));
    }
}
