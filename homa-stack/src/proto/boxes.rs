//! Boxes that are used again: the messages of an RPC are neither allocated nor moved in steady state.

/// What can be emptied and begun anew where it lies.
pub(crate) trait Recycle: Default {
    /// Lets go of all that others could use.
    fn clear(&mut self);
}

/// Empty boxes, as many as were ever in use at a time.
#[derive(Debug)]
pub(crate) struct Boxes<T>(Vec<Box<T>>);

impl<T> Default for Boxes<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Recycle> Boxes<T> {
    /// An empty box.
    #[inline]
    pub(crate) fn take(&mut self) -> Box<T> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps a box, without what is in it.
    #[inline]
    pub(crate) fn put(&mut self, mut full: Box<T>) {
        full.clear();
        self.0.push(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct List(Vec<u8>);

    impl Recycle for List {
        fn clear(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn a_box_comes_back_empty_and_in_its_place() {
        let mut boxes = Boxes::default();
        let mut list: Box<List> = boxes.take();
        list.0.push(7);
        let place = std::ptr::from_ref(&*list);
        boxes.put(list);
        let again = boxes.take();
        assert!(std::ptr::eq(&raw const *again, place));
        assert!(again.0.is_empty() && again.0.capacity() > 0);
    }
}
