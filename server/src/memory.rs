//! How the program gets memory from the system.

/// Asks the kernel for pages of 4 KiB only, for the whole process.
///
/// A huge page is zeroed while whoever needs it waits, and all that wait for them, on some virtual machines for milliseconds.
/// Once the logs are full, so that memory is used again, there is no difference.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    // A kernel that cannot is as good as one that was not asked.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
