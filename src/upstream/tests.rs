//! Answers as servers give them: what is delivered, dropped, and believed.
