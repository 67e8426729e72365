"""What every benchmark needs: the machine, processes in turn, a trained model, the page."""
