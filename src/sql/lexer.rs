//! PostgreSQL's lexical rules.
