"""What is made of many lotteries."""
