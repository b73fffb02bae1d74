"""What predict.py and app.py need beyond the model: finding recordings, writing answers, drawing, explaining."""
