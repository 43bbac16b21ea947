//! Named counters. Whatever is refused, capped or malformed is counted under a name that stays the same
//! from here to the metrics page.

/// Declares a struct of `u64` counters with a stable name for each: what `stats` events and metrics show.
macro_rules! counters {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident => $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            /// Every counter with its dotted name, in the order of declaration.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$(($label, self.$field),)*].into_iter()
            }

            /// Adds another worker's counters to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }
        }
    };
}

pub(crate) use counters;
