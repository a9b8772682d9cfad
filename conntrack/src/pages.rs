//! Huge pages, where the kernel has them: the look-up of one among a million flows then waits for
//! its two cache lines, and not for the page tables that lead to them. The only file of the crate
//! with `unsafe`.

#![allow(unsafe_code)]

/// Bytes of a huge page, and what one begins at a multiple of: those of most processors.
const HUGE: usize = 2 << 20;

/// Asks for huge pages under `memory`, which is better fresh. Where whole ones do not fit it, or the
/// kernel has none, nothing happens: it is a hint (madvise(2), `MADV_HUGEPAGE`).
pub(crate) fn prefer_huge<T>(memory: &mut [T]) {
    let bytes = size_of_val(memory);
    let start = memory.as_mut_ptr().cast::<u8>();
    let skipped = start.addr().next_multiple_of(HUGE) - start.addr();
    let whole = bytes.saturating_sub(skipped) / HUGE * HUGE;
    if whole == 0 {
        return;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: `skipped + whole` is at most `bytes`, so the range lies in memory that is borrowed here
    // and nowhere else. The advice changes what pages it stands on, and no byte of it.
    let _ = unsafe {
        let start = start.wrapping_add(skipped).cast();
        rustix::mm::madvise(start, whole, rustix::mm::Advice::LinuxHugepage)
    };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::ops::Range;

    use super::*;

    /// The mappings of this process that are to have huge pages, which the kernel tells in a file.
    #[expect(clippy::disallowed_methods)]
    fn advised() -> Vec<Range<usize>> {
        let smaps = fs::read_to_string("/proc/self/smaps").expect("smaps");
        let (mut found, mut range) = (Vec::new(), 0..0);
        for line in smaps.lines() {
            let first = line.split(' ').next().unwrap_or_default();
            if let Some((start, end)) = first.split_once('-') {
                let number = |text| usize::from_str_radix(text, 16).expect("an address");
                range = number(start)..number(end);
            } else if first == "VmFlags:" && line.split(' ').any(|flag| flag == "hg") {
                found.push(range.clone());
            }
        }
        found
    }

    #[test]
    fn whole_huge_pages_are_asked_for_and_no_byte_changes() {
        if !fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap_or_default() {
            eprintln!("NOT TESTED: this kernel has no huge pages");
            return;
        }
        let mut memory: Vec<u32> = (0..8 << 20).collect();
        prefer_huge(&mut memory);
        let start = memory.as_ptr().addr();
        let end = start + size_of_val(&memory[..]);
        let (first, last) = (start.next_multiple_of(HUGE), end / HUGE * HUGE);
        let advised = advised();
        let is_advised = |at| advised.iter().any(|range| range.contains(&at));
        assert!((first..last).step_by(HUGE).all(is_advised), "{first:x}-{last:x}: {advised:x?}");
        assert!(memory.iter().zip(0..).all(|(word, number)| *word == number));
    }

    #[test]
    fn what_holds_no_huge_page_is_left_alone() {
        prefer_huge::<u64>(&mut []);
        let mut small = vec![7_u8; HUGE - 1];
        prefer_huge(&mut small);
        assert!(small.iter().all(|byte| *byte == 7));
    }
}
