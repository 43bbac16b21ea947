//! JSON arrays and objects that stay small whatever the sender writes: a 16 MiB body of `{},{},…`
//! would grow seventyfold as a vector of structs. Elements beyond the cap are read over and counted.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The first `MAX` elements of an array; `null` is an empty one (Go writes its nil slices so).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CappedVec<T, const MAX: usize> {
    pub items: Vec<T>,
    pub refused: u64,
}

/// The first `MAX` members of an object; `null` is an empty one. A key that comes twice keeps its last value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CappedMap<V, const MAX: usize> {
    pub items: BTreeMap<String, V>,
    pub refused: u64,
}

impl<T, const MAX: usize> Default for CappedVec<T, MAX> {
    fn default() -> Self {
        Self { items: Vec::new(), refused: 0 }
    }
}

impl<V, const MAX: usize> Default for CappedMap<V, MAX> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), refused: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for CappedVec<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = CappedVec<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array or null")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(CappedVec::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut kept = CappedVec::default();
                while kept.items.len() < MAX {
                    match seq.next_element()? {
                        Some(item) => kept.items.push(item),
                        None => return Ok(kept),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    kept.refused += 1;
                }
                Ok(kept)
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

impl<'de, V: Deserialize<'de>, const MAX: usize> Deserialize<'de> for CappedMap<V, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V, const MAX: usize>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>, const MAX: usize> Visitor<'de> for Members<V, MAX> {
            type Value = CappedMap<V, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(CappedMap::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut kept = CappedMap::default();
                while kept.items.len() < MAX {
                    match map.next_entry::<String, V>()? {
                        Some((key, value)) => drop(kept.items.insert(key, value)),
                        None => return Ok(kept),
                    }
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    kept.refused += 1;
                }
                Ok(kept)
            }
        }
        deserializer.deserialize_any(Members(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_kept_and_the_rest_is_counted() {
        let three: CappedVec<u8, 3> = serde_json::from_str("[1,2,3,4,5]").expect("an array");
        assert_eq!((three.items, three.refused), (vec![1, 2, 3], 2));
        let exact: CappedVec<u8, 3> = serde_json::from_str("[1,2,3]").expect("an array");
        assert_eq!((exact.items.len(), exact.refused), (3, 0));
        let two: CappedMap<u8, 2> = serde_json::from_str(r#"{"b":1,"a":2,"c":{"x":[]}}"#).expect("an object");
        assert_eq!((two.items.keys().map(String::as_str).collect::<Vec<_>>(), two.refused), (vec!["a", "b"], 1));
    }

    #[test]
    fn null_is_empty_and_other_types_are_errors() {
        assert_eq!(serde_json::from_str::<CappedVec<u8, 3>>("null").expect("null"), CappedVec::default());
        assert_eq!(serde_json::from_str::<CappedMap<u8, 3>>("null").expect("null"), CappedMap::default());
        for wrong in ["1", "\"x\"", "{}", "[1", "[300]"] {
            assert!(serde_json::from_str::<CappedVec<u8, 3>>(wrong).is_err(), "{wrong}");
        }
        for wrong in ["1", "[]", "{\"a\":1", "{\"a\":\"b\"}"] {
            assert!(serde_json::from_str::<CappedMap<u8, 3>>(wrong).is_err(), "{wrong}");
        }
    }
}
