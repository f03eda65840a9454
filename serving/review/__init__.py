"""What a change does to every stack: the comment that a reviewer reads in a pull request."""
