"""From recordings to answers: finding files, scoring, explaining, drawing, writing."""
