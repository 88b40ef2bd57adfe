//! Memory that the process is done with.

/// Gives free pages of the heap back to the system. Parsing a configuration of many clients leaves hundreds of megabytes
/// of them between what was kept; without this they would stay resident for the life of the process.
///
/// It walks the heap: for the start and for a reload, not for the packet path.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks and touches free memory only; any thread may call it.
    unsafe {
        libc::malloc_trim(0);
    }
}
