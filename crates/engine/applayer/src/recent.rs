//! What a parser remembers of a session by a key: as many as its cap allows, the oldest go.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    max: usize,
    entries: BTreeMap<K, (u64, V)>,
    /// By age.
    order: BTreeMap<u64, K>,
    next: u64,
}

impl<K: Ord + Clone, V> Recent<K, V> {
    pub const fn new(max: usize) -> Self {
        Self { max, entries: BTreeMap::new(), order: BTreeMap::new(), next: 0 }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Gives what had to go for it: what was remembered by this key, or else the oldest.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.remove(&key);
        let gone = before.or_else(|| if self.entries.len() >= self.max { self.pop() } else { None });
        self.order.insert(self.next, key.clone());
        self.entries.insert(key, (self.next, value));
        self.next += 1;
        gone
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (age, value) = self.entries.remove(key)?;
        self.order.remove(&age);
        Some(value)
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<V> {
        let (_, key) = self.order.pop_first()?;
        self.entries.remove(&key).map(|(_, value)| value)
    }

    /// The newest one that `is` it.
    pub fn newest(&self, is: impl Fn(&K, &V) -> bool) -> Option<K> {
        let newest = self.entries.iter().filter(|(key, (_, value))| is(key, value)).max_by_key(|(_, (age, _))| *age);
        newest.map(|(key, _)| key.clone())
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_one_key_stands_once() {
        let mut recent = Recent::new(2);
        assert_eq!((recent.insert("a", 1), recent.insert("b", 2), recent.insert("a", 3)), (None, None, Some(1)));
        assert_eq!((recent.insert("c", 4), recent.get(&"b"), recent.get(&"a")), (Some(2), None, Some(&3)));
        assert_eq!((recent.remove(&"a"), recent.pop(), recent.pop()), (Some(3), Some(4), None));
    }
}
