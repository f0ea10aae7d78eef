/*
 * main.c: the one place that exits.
 */
#include <stdio.h>

int main(void)
{
    printf("embedmill\n");
    return 0;
}
