//! Gives back to the system what only starting needed. Uses: nothing.

/// Frees unused heap, and lets go of the program's own code: what is called again is read again
/// from the page cache. Starting runs through half of a large program, and the system would
/// count all of it as ours for ever.
pub fn give_back() {
    trim_heap();
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let Ok(program) = std::env::current_exe() else { return };
    let code = maps
        .lines()
        .filter(|line| line.contains(" r-xp ") && program.to_str().is_some_and(|path| line.ends_with(path)));
    for range in code.filter_map(|line| line.split_whitespace().next()) {
        let mut ends = range.split('-').map(|end| usize::from_str_radix(end, 16));
        if let (Some(Ok(start)), Some(Ok(end))) = (ends.next(), ends.next()) {
            // SAFETY: code is mapped from the file and never written, so the kernel restores each
            // page as it was when it is next used.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// What once was needed, to compile or to describe a flood of series, the allocator would keep.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
