//! What several parts of this crate do in one way: cut a value off some bytes, work on several threads, look at ranges
//! and zeros.

use crate::block::PIECE;
use std::ops::Range;

/// Takes the first `N` bytes off; nothing if there are fewer.
pub fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}

/// Takes a text off that begins with its length, a byte; nothing if it is cut, or is no UTF-8.
pub fn word(rest: &mut &[u8]) -> Option<String> {
    let [length] = *take::<1>(rest)?;
    let (word, tail) = rest.split_at_checked(usize::from(length))?;
    *rest = tail;
    Some(std::str::from_utf8(word).ok()?.to_owned())
}

/// Does the same on so many threads, one at least, and gives what each ended with. A panic of one goes on here.
pub fn on_threads<T: Send>(threads: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let begun: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(&work)).collect();
        let end = |thread: std::thread::ScopedJoinHandle<'_, T>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        begun.into_iter().map(end).collect()
    })
}

/// Whether any of these ranges, which are in order, has a byte of the span.
pub fn overlaps(ranges: &[Range<u64>], span: &Range<u64>) -> bool {
    let first = ranges.partition_point(|range| range.end <= span.start);
    ranges.get(first).is_some_and(|range| range.start < span.end)
}

/// Whether there is nothing but zeros; a piece at once, as the processor likes it.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PIECE).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}
